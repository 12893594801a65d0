/* A Multiboot 2 header behind the first version's, which asks for a frame buffer of 640 x 480. */
	.section .multiboot, "a"
	.balign 8
header:
	.long 0xe85250d6, 0, header_end - header, -(0xe85250d6 + header_end - header)
	/* information: command line, modules, memory, map, frame buffer, ACPI */
	.short 1, 0
	.long 32, 1, 3, 4, 6, 8, 14
	/* frame buffer */
	.short 5, 0
	.long 20, 640, 480, 32
	.balign 8
	/* modules on page boundaries */
	.short 6, 0
	.long 8
	/* what no loader knows, but is optional */
	.short 77, 1
	.long 12, 0
	.balign 8
	.short 0, 0
	.long 8
header_end:
