// A calculator: `app 6 '*' 7` prints 42.
package main

import (
	"fmt"
	"os"
	"strings"
)

func main() {
	var a, b int
	var operator string
	expression := strings.Join(os.Args[1:], " ")
	if expression == "" {
		expression = "6 * 7"
	}
	if _, err := fmt.Sscan(expression, &a, &operator, &b); err != nil {
		fmt.Fprintln(os.Stderr, "ask for something like 6 '*' 7:", err)
		os.Exit(1)
	}
	switch operator {
	case "+":
		fmt.Println(a + b)
	case "-":
		fmt.Println(a - b)
	case "*":
		fmt.Println(a * b)
	default:
		fmt.Fprintln(os.Stderr, operator, "is no operator")
		os.Exit(1)
	}
}
