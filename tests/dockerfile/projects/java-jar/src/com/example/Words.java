package com.example;

public final class Words {
    public static String greeting() {
        return "hello";
    }
}
