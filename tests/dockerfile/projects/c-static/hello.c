#include <stdio.h>

int main(int count, char **words) { return puts(words[count - 1]) < 0; }
