package shares

const (
	sysSyncfs       = 267
	sysOpenByHandle = 265
)
