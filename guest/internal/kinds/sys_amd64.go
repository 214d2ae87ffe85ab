package kinds

const sysMemfdCreate = 319
