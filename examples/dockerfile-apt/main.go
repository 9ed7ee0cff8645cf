// A calculator: `app 6 '*' 7` prints 42, as does `app` alone.
package main

import (
	"fmt"
	"os"
	"strconv"
)

func main() {
	expression := []string{"6", "*", "7"}
	if len(os.Args) == 4 {
		expression = os.Args[1:]
	}
	a, problem := strconv.Atoi(expression[0])
	b, another := strconv.Atoi(expression[2])
	if problem != nil || another != nil {
		fmt.Println("ask for something like 6 '*' 7")
		os.Exit(1)
	}
	switch expression[1] {
	case "+":
		fmt.Println(a + b)
	case "-":
		fmt.Println(a - b)
	case "*":
		fmt.Println(a * b)
	default:
		fmt.Println(expression[1], "is no operator")
		os.Exit(1)
	}
}
