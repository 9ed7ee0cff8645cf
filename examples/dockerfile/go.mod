module example.com/simplecal

go 1.19
