sub/z_test.go
