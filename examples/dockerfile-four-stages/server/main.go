// server prints the file that it is given, behind what its client says.
package main

import (
	"log"
	"os"
	"os/exec"
)

func main() {
	client := exec.Command("/bin/client")
	client.Stdout, client.Stderr = os.Stdout, os.Stderr
	if err := client.Run(); err != nil {
		log.Fatal(err)
	}
	content, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	os.Stdout.Write(content)
}
