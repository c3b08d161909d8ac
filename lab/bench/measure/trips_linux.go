package measure

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
)

// What the kernel calls the parts of a socket's state, see linux/inet_diag.h and linux/tcp.h.
const (
	inetDiag        = 4  // NETLINK_INET_DIAG, the family of netlink
	byFamily        = 20 // SOCK_DIAG_BY_FAMILY, the request
	withInfo        = 2  // INET_DIAG_INFO, the attribute that holds tcp_info
	established     = 1
	requestSize     = syscall.NLMSG_HDRLEN + 56
	diagSize        = 72  // of inet_diag_msg, which begins each answer
	dataSegmentsIn  = 152 // of tcp_info
	localPort       = 4   // of inet_diag_msg, big endian
	remotePort      = 6
	dumpBufferBytes = 1 << 20
)

// dataSegments returns for each connection to a port of this machine, by the client's port, how many segments with data
// the server has received: on the loopback interface that is one for each write of the client, and the kernel counts
// them anyway.
func dataSegments(port uint16) (map[uint16]uint32, error) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, inetDiag)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer syscall.Close(fd) //nolint:errcheck // read only
	req := make([]byte, requestSize)
	order := binary.NativeEndian
	order.PutUint32(req[0:], requestSize)
	order.PutUint16(req[4:], byFamily)
	order.PutUint16(req[6:], syscall.NLM_F_REQUEST|syscall.NLM_F_DUMP)
	body := req[syscall.NLMSG_HDRLEN:]
	body[0], body[1], body[2] = syscall.AF_INET, syscall.IPPROTO_TCP, 1<<(withInfo-1)
	order.PutUint32(body[4:], 1<<established)
	if err := syscall.Sendto(fd, req, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	out := map[uint16]uint32{}
	buf := make([]byte, dumpBufferBytes)
	for {
		n, _, err := syscall.Recvfrom(fd, buf, 0)
		if err != nil {
			return nil, os.NewSyscallError("recvfrom", err)
		}
		msgs, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return nil, err
		}
		for _, m := range msgs {
			switch m.Header.Type {
			case syscall.NLMSG_DONE:
				return out, nil
			case syscall.NLMSG_ERROR:
				return nil, fmt.Errorf("list the connections: %x", m.Data)
			}
			if len(m.Data) >= diagSize && binary.BigEndian.Uint16(m.Data[localPort:]) == port {
				if segments, ok := segmentsIn(m.Data[diagSize:]); ok {
					out[binary.BigEndian.Uint16(m.Data[remotePort:])] = segments
				}
			}
		}
	}
}

// segmentsIn finds tcp_info among a connection's attributes.
func segmentsIn(attrs []byte) (uint32, bool) {
	order := binary.NativeEndian
	for len(attrs) >= 4 {
		length, kind := int(order.Uint16(attrs)), order.Uint16(attrs[2:])
		if length < 4 || length > len(attrs) {
			break
		}
		if info := attrs[4:length]; kind == withInfo && len(info) >= dataSegmentsIn+4 {
			return order.Uint32(info[dataSegmentsIn:]), true
		}
		attrs = attrs[min(len(attrs), (length+3)&^3):]
	}
	return 0, false
}
