// words prints the file that another stage made.
package main

import _ "embed"
import "fmt"

//go:embed upper.txt
var words string

func main() {
	fmt.Print(words)
}
