// simplecal is a calculator on port 8080: GET /6*7 is answered with 42.
//
// It speaks HTTP by itself, because net/http alone would be more than twice the rest.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
)

func main() {
	listener, err := net.Listen("tcp", ":8080")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("listening on", listener.Addr())
	for {
		connection, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		go answer(connection)
	}
}

func answer(connection net.Conn) {
	defer connection.Close()
	lines := bufio.NewScanner(connection)
	lines.Scan()
	// Proxies may write the star in its escaped form.
	request := strings.Replace(lines.Text(), "%2A", "*", 1)
	// Up to the empty line: to close while something is unread would take the answer back.
	for lines.Scan() && lines.Text() != "" {
	}
	status, body := "200 OK", ""
	if result, err := calculate(request); err == nil {
		body = fmt.Sprintln(result)
	} else {
		status, body = "400 Bad Request", fmt.Sprintln("ask for something like /6*7:", err)
	}
	fmt.Fprintf(connection, "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		status, len(body), body)
}

// calculate takes the first line of a request.
func calculate(request string) (int, error) {
	var a, b int
	var operator rune
	if _, err := fmt.Sscanf(request, "GET /%d%c%d ", &a, &operator, &b); err != nil {
		return 0, err
	}
	switch operator {
	case '+':
		return a + b, nil
	case '-':
		return a - b, nil
	case '*':
		return a * b, nil
	case '/':
		if b == 0 {
			return 0, fmt.Errorf("%d cannot be divided by 0", a)
		}
		return a / b, nil
	}
	return 0, fmt.Errorf("%c is no operator", operator)
}
