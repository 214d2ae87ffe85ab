package netcfg

const (
	sysSyncfs = 267
	sysStatx  = 291
)
