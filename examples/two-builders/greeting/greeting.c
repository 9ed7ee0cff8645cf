/* greeting greets the one that is named. */
#include <stdio.h>

int main(int argc, char **argv)
{
	printf("hello %s, this is C\n", argc > 1 ? argv[1] : "world");
	return 0;
}
