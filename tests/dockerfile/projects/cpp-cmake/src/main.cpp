#include <iostream>

#include "parse.h"

int main(int, char **words) { std::cout << parse(words[1]) << std::endl; }
