# What a KVM must be able to do before a kernel can boot on it, as a 64 KiB firmware image's
# beginning. Each stage writes a letter to the first serial port; the end is an exit by
# isa-debug-exit. See kvm-payload.ts for how the bytes there are made from this file.
#
#   R real mode        P protected mode      L long mode with paging
#   X exceptions (#BP, #UD, #PF)             M model-specific registers
#   U user mode and back by SYSCALL          T local APIC timer interrupt
#   C compute: loops and page table switches at a speed that a kernel can live with
#
# Memory: page tables 0x10000, stack below 0x20000, GDT 0x15000, IDT 0x16000, TSS 0x14000.

        .set base, 0xf0000
        .macro say letter
        mov $0x3f8, %dx
        mov $\letter, %al
        out %al, %dx
        .endm

        .text
        .globl _start
        .code16
_start: cli
        cld
        say 'R'
        lgdtl %cs:(gdtr - _start)
        mov %cr0, %eax
        or $1, %al
        mov %eax, %cr0
        ljmpl $8, $prot

        .code32
prot:   mov $0x10, %ax
        mov %ax, %ds
        mov %ax, %es
        mov %ax, %ss
        mov $0x20000, %esp
        say 'P'
        # Page tables: the first 2 MiB, an alias of them at 2 MiB, the local APIC.
        mov $0x10000, %edi
        xor %eax, %eax
        mov $0x2000, %ecx
        rep stosl
        movl $0x11007, 0x10000
        movl $0x12007, 0x11000
        movl $0x13007, 0x11018
        movl $0x87, 0x12000
        movl $0x87, 0x12008
        movl $0xfee0009b, 0x13fb8
        mov %cr4, %eax
        or $0x20, %eax
        mov %eax, %cr4
        mov $0x10000, %eax
        mov %eax, %cr3
        mov $0xc0000080, %ecx
        rdmsr
        or $0x901, %eax
        wrmsr
        mov %cr0, %eax
        or $0x80010000, %eax
        mov %eax, %cr0
        ljmp $0x18, $long

        .code64
long:   mov $0x20000, %rsp
        say 'L'
        # Descriptor tables in RAM: loading the task register writes to its descriptor.
        mov $gdt, %esi
        mov $0x15000, %edi
        mov $(gdtend - gdt), %ecx
        rep movsb
        movl $0x1fff0, 0x14004
        movw $0x67, 0x15038
        movl $0x00014000, 0x1503a
        movb $0x89, 0x1503d
        movb $0, 0x1503c
        movb $1, 0x1503c
        lgdt ramgdtr(%rip)
        mov $0x16000, %edi
        mov $0x400, %ecx
        xor %eax, %eax
        rep stosl
        mov $3, %ebx
        mov $onbp, %eax
        call gate
        mov $6, %ebx
        mov $onud, %eax
        call gate
        mov $14, %ebx
        mov $onpf, %eax
        call gate
        mov $0x40, %ebx
        mov $ontimer, %eax
        call gate
        lidt idtr(%rip)
        mov $0x38, %ax
        ltr %ax
        # Exceptions: each handler counts in r15.
        xor %r15d, %r15d
        int3
        ud2
        movl $0x12345678, 0x400000
        cmpl $0x12345678, 0x400000
        jne fail
        cmp $3, %r15d
        jne fail
        say 'X'
        # Model-specific registers of system calls and of per-processor data.
        mov $0xc0000081, %ecx
        xor %eax, %eax
        mov $0x00200018, %edx
        wrmsr
        mov $0xc0000082, %ecx
        mov $onsyscall, %eax
        xor %edx, %edx
        wrmsr
        mov $0xc0000084, %ecx
        mov $0x200, %eax
        xor %edx, %edx
        wrmsr
        mov $0xc0000102, %ecx
        mov $0x18000, %eax
        xor %edx, %edx
        wrmsr
        rdmsr
        cmp $0x18000, %eax
        jne fail
        xor %eax, %eax
        cpuid
        say 'M'
        # User mode by IRETQ, back by SYSCALL.
        pushq $0x2b
        pushq $0x1f000
        pushq $2
        pushq $0x33
        pushq $user
        iretq
user:   syscall
        ud2
onsyscall:
        swapgs
        movq $7, %gs:0
        cmpq $7, 0x18000
        jne fail
        mov $0x20000, %rsp
        say 'U'
        # One timer interrupt.
        mov $0xfee00000, %ebx
        movl $0x1ff, 0xf0(%rbx)
        movl $0x40, 0x320(%rbx)
        movl $0xb, 0x3e0(%rbx)
        xor %r14d, %r14d
        movl $100000, 0x380(%rbx)
1:      sti
        hlt
        cli
        test %r14d, %r14d
        jz 1b
        say 'T'
        # Speed: 30 million loops, 20,000 page table switches with a remapped page each.
        mov $30000000, %ecx
2:      dec %ecx
        jnz 2b
        mov $20000, %ecx
        mov %cr3, %rax
3:      xorl $0x20, 0x12008
        invlpg 0x200000
        mov %rax, %cr3
        addl $1, 0x217000
        dec %ecx
        jnz 3b
        say 'C'
        mov $0x20, %al
        out %al, $0xf4
fail:   mov $0x21, %al
        out %al, $0xf4
4:      hlt
        jmp 4b

# Write the gate of vector ebx to the handler at eax.
gate:   shl $4, %ebx
        mov %ax, 0x16000(%rbx)
        movw $0x18, 0x16002(%rbx)
        movw $0x8e00, 0x16004(%rbx)
        shr $16, %eax
        mov %ax, 0x16006(%rbx)
        ret

onbp:   inc %r15d
        iretq
onud:   inc %r15d
        addq $2, (%rsp)
        iretq
# Map the page at 4 MiB that has been touched.
onpf:   inc %r15d
        movl $0x200087, 0x12010
        add $8, %rsp
        iretq
ontimer:
        inc %r14d
        mov $0xfee00000, %ebx
        movl $0, 0xb0(%rbx)
        iretq

        .balign 8
gdt:    .quad 0
        .quad 0x00cf9b000000ffff        # 08 code 32
        .quad 0x00cf93000000ffff        # 10 data
        .quad 0x00af9b000000ffff        # 18 code 64
        .quad 0x00cf93000000ffff        # 20 data for SYSCALL
        .quad 0x00cff3000000ffff        # 28 user data
        .quad 0x00affb000000ffff        # 30 user code 64
        .quad 0, 0                      # 38 task state
gdtend:
gdtr:   .word gdtend - gdt - 1
        .long gdt
ramgdtr:
        .word gdtend - gdt - 1
        .quad 0x15000
idtr:   .word 0xfff
        .quad 0x16000
