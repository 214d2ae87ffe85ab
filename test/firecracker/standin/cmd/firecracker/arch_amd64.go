package main

const isArm64 = false
