public final class Hello {
    public static void main(String[] arguments) {
        java.util.logging.Logger.getLogger("hello").info("hello");
    }
}
