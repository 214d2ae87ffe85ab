package shares

const (
	sysSyncfs       = 306
	sysOpenByHandle = 304
)
