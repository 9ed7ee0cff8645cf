// server prints what the C program beside it says.
package main

import (
	"fmt"
	"os"
	"os/exec"
)

func main() {
	output, err := exec.Command("/bin/greeting", "Go").Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("Go heard: %s", output)
}
