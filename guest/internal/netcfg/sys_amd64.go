package netcfg

const sysSyncfs = 306
