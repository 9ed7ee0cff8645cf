#include "parse.h"

int parse(const std::string &text) { return std::stoi(text); }
