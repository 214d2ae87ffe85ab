package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"time"
)

// serve listens on every address of the namespace and says, on every protocol, which address
// was reached under which name.
func serve(args []string) {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	banner := flags.String("tcp", "", "ports that greet and echo")
	web := flags.String("http", "", "HTTP ports")
	switching := flags.String("http101", "", "HTTP ports whose every answer is 101")
	secure := flags.String("tls", "", "TLS ports")
	datagram := flags.String("udp", "", "UDP ports that echo")
	sink := flags.String("sink", "", "ports that read everything")
	source := flags.String("source", "", "ports that write without end")
	fail(flags.Parse(args))
	addresses, err := net.InterfaceAddrs()
	fail(err)
	certificate := selfSigned()
	for _, address := range addresses {
		ip := address.(*net.IPNet).IP
		if ip.IsLinkLocalUnicast() && ip.To4() == nil {
			continue
		}
		each(*banner, func(port string) { listen(ip, port, greet) })
		each(*web, func(port string) { listen(ip, port, answerHTTP) })
		each(*switching, func(port string) { listen(ip, port, answer101) })
		each(*secure, func(port string) {
			listen(ip, port, func(conn net.Conn) { answerTLS(conn, certificate) })
		})
		each(*sink, func(port string) {
			listen(ip, port, func(conn net.Conn) { io.Copy(io.Discard, conn) })
		})
		each(*source, func(port string) {
			listen(ip, port, func(conn net.Conn) {
				for {
					if _, err := conn.Write(make([]byte, 64<<10)); err != nil {
						return
					}
				}
			})
		})
		each(*datagram, func(port string) { echoUDP(ip, port) })
	}
	emit(map[string]string{"event": "ready"})
	select {}
}

// each calls body for every entry of a comma list.
func each(list string, body func(string)) {
	for _, entry := range strings.Split(list, ",") {
		if entry != "" {
			body(entry)
		}
	}
}

func listen(ip net.IP, port string, handle func(net.Conn)) {
	listener, err := net.Listen("tcp", net.JoinHostPort(ip.String(), port))
	fail(err)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				handle(conn)
			}()
		}
	}()
}

// greet says who it is and echoes.
func greet(conn net.Conn) {
	fmt.Fprintf(conn, "server=%s peer=%s\n", conn.LocalAddr(), conn.RemoteAddr())
	io.Copy(conn, conn)
}

// answerHTTP answers requests with the host that they named.
func answerHTTP(conn net.Conn) {
	reader := bufio.NewReader(conn)
	for {
		request, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		io.Copy(io.Discard, request.Body)
		if protocol := request.Header.Get("Upgrade"); protocol != "" && protocol != "other" {
			sayUpgraded(conn, protocol)
			io.Copy(conn, reader)
			return
		}
		text := fmt.Sprintf("server=%s host=%s\n", conn.LocalAddr(), request.Host)
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
	}
}

// sayUpgraded is the answer that ends HTTP on a connection.
func sayUpgraded(conn net.Conn, protocol string) {
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: %s\r\nConnection: upgrade\r\n\r\n", protocol)
}

// answer101 agrees to every upgrade, asked for or not, then echoes everything and goes on answering
// what is a request all the same.
func answer101(conn net.Conn) {
	echo := &lateWriter{to: conn}
	reader := bufio.NewReader(io.TeeReader(conn, echo))
	for {
		request, err := http.ReadRequest(reader)
		if err != nil {
			io.Copy(io.Discard, reader)
			return
		}
		io.Copy(io.Discard, request.Body)
		protocol := request.Header.Get("Upgrade")
		if protocol == "" {
			protocol = "h2c"
		}
		sayUpgraded(conn, protocol)
		fmt.Fprintf(conn, "server=%s host=%s\n", conn.LocalAddr(), request.Host)
		if !echo.open {
			echo.open = true
			behind, _ := reader.Peek(reader.Buffered())
			conn.Write(behind)
		}
	}
}

// lateWriter drops what is written before it is opened.
type lateWriter struct {
	to   io.Writer
	open bool
}

func (w *lateWriter) Write(data []byte) (int, error) {
	if !w.open {
		return len(data), nil
	}
	return w.to.Write(data)
}

// answerTLS says which name the handshake asked for, then echoes.
func answerTLS(conn net.Conn, certificate tls.Certificate) {
	secure := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}})
	if secure.Handshake() != nil {
		return
	}
	fmt.Fprintf(secure, "server=%s sni=%s\n", conn.LocalAddr(), secure.ConnectionState().ServerName)
	io.Copy(secure, secure)
}

func echoUDP(ip net.IP, port string) {
	conn, err := net.ListenPacket("udp", net.JoinHostPort(ip.String(), port))
	fail(err)
	go func() {
		buffer := make([]byte, 65536)
		for {
			n, peer, err := conn.ReadFrom(buffer)
			if err != nil {
				continue
			}
			conn.WriteTo([]byte(fmt.Sprintf("server=%s %d %.20q", conn.LocalAddr(), n, buffer[:n])), peer)
		}
	}()
}

// selfSigned is a certificate that nobody trusts; probes do not ask.
func selfSigned() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fail(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "test"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Now().AddDate(10, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	fail(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
