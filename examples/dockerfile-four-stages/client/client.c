#include <stdio.h>

int main(void)
{
	return puts(GREETING " from C") < 0;
}
