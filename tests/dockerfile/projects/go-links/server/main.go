package main

import (
	"fmt"
	"os"
)

var version = "none"

func main() { fmt.Println(os.Args[0], version) }
