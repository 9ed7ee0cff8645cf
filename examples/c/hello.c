// Says which C library it runs on: the image's, or its own when it is linked statically.
#include <gnu/libc-version.h>
#include <stdio.h>

int main(void) {
    printf("hello from C on glibc %s\n", gnu_get_libc_version());
}
