package modules

const sysFinitModule = 313
