module example.com/go-https

go 1.19
