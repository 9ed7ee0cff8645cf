import java.nio.file.Files;
import java.nio.file.Path;

public final class Pages {
    public static void main(String[] arguments) throws Exception {
        for (int page = 1; page <= 3; page++) {
            Files.writeString(Path.of(arguments[0], page + ".html"), "<h1>Page " + page + "</h1>\n");
        }
    }
}
