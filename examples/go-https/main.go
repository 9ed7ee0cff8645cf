// Asks a server by https, and says what time it is elsewhere: both want files that an image from scratch does not have.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/user"
	"time"
)

func main() {
	address := os.Getenv("ASK")
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	answer, err := http.Get(address)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	answer.Body.Close()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	own, err := user.Current()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	epoch := time.Unix(0, 0).In(zone).Format("15:04 MST")
	fmt.Printf("status %d, the epoch was at %s in Berlin, I am %s\n", answer.StatusCode, epoch, own.Username)
}
