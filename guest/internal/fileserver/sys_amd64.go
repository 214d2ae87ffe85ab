package fileserver

import "syscall"

const (
	sysRenameat2     = 316
	sysCopyFileRange = 326
	sysFstatat       = syscall.SYS_NEWFSTATAT
)
