// pause holds the namespaces of a pod: it waits until it is killed, and does nothing else.
package main

import "syscall"

func main() {
	for {
		_ = syscall.Pause()
	}
}
