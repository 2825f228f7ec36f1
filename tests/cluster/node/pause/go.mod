module cloacina.io/tests/pause

go 1.24.0
