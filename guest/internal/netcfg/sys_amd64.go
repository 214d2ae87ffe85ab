package netcfg

const (
	sysSyncfs = 306
	sysStatx  = 332
)
