package fileserver

import "syscall"

const (
	sysRenameat2     = 316
	sysCopyFileRange = 326
	sysNameToHandle  = 303
	sysStatx         = 332
	sysFstatat       = syscall.SYS_NEWFSTATAT
)
