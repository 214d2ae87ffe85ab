package modules

const sysFinitModule = 273
