package files

import "syscall"

const sysRenameat2 = 316

// sysFstatat is fstatat(2).
const sysFstatat = syscall.SYS_NEWFSTATAT
