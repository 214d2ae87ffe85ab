z.go
