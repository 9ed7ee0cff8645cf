#include <stdio.h>

#include "greet.h"

int main(void) { return puts(greet()) < 0; }
