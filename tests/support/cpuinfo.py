"""/proc/cpuinfo of a server and of a board."""

X86 = """\
processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 9R14
flags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16 avx512vl

processor\t: 1
model name\t: something else
flags\t\t: fpu
"""
ARM = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd asimddp i8mm
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd0b

Hardware\t: BCM2835
Model\t\t: a board: revision 1.0
"""
