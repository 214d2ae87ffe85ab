package netcfg

const sysSyncfs = 267
