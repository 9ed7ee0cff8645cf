/* hello prints the two files beside it and the C library that the base brings. */
#include <gnu/libc-version.h>
#include <stdio.h>

static void print(const char *path)
{
	char line[80];
	FILE *file = fopen(path, "r");

	if (file && fgets(line, sizeof line, file))
		fputs(line, stdout);
}

int main(void)
{
	print("greeting.txt");
	print("audience.txt");
	printf("glibc %s\n", gnu_get_libc_version());
	return 0;
}
