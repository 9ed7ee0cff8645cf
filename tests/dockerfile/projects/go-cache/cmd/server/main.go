package main

import (
	"fmt"

	"github.com/spf13/pflag"
)

func main() {
	verbose := pflag.Bool("verbose", false, "say more")
	pflag.Parse()
	fmt.Println("serving", *verbose)
}
