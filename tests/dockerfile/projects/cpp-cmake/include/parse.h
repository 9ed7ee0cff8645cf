#pragma once
#include <string>

int parse(const std::string &text);
