package kinds

const sysMemfdCreate = 279
