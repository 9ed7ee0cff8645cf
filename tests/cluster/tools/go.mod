module minimalimage/tests/cluster/tools

go 1.24.0
