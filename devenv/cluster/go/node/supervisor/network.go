package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// joinHost makes the pair of interfaces, one end here, the other as eth0 where `pid` lives, and the way out for it.
func joinHost(s Settings, pid int) error {
	pair := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: s.link(), MTU: s.Network.MTU},
		PeerName:      "eth0",
		PeerNamespace: netlink.NsPid(pid),
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("adding the interface %s: %w", s.link(), err)
	}
	if err := setAddress(s.link(), netip.PrefixFrom(s.Network.Host, linkBits)); err != nil {
		return err
	}
	if err := route(s.link(), s.Network.Balancers, s.Network.Node); err != nil {
		return err
	}
	if err := rememberForwarding(filepath.Dir(s.Run)); err != nil {
		return err
	}
	passFirewall(s)
	return nft(s, fmt.Sprintf(`
table ip %[1]s
delete table ip %[1]s
table ip %[1]s {
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr %[2]s oifname != "%[3]s" masquerade
  }
}`, s.table(), s.Network.Node, s.link()))
}

// leaveHost removes what joinHost made; the interfaces are gone with their namespace, or go now.
func leaveHost(s Settings) error {
	if link, err := netlink.LinkByName(s.link()); err == nil {
		if err := removeLink(link); err != nil {
			return err
		}
	}
	leaveFirewall(s)
	return nft(s, fmt.Sprintf("table ip %[1]s\ndelete table ip %[1]s\n", s.table()))
}

// removeLink removes an interface. It may go by itself at this very moment: the kernel takes a namespace away when the
// last process of it has ended, and that is after the supervisor's lock is free.
func removeLink(link netlink.Link) error {
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("removing the interface %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// joinInside sets up our end, and hides the pods behind the node's address.
func joinInside(s Settings) error {
	if err := setAddress("lo", netip.Prefix{}); err != nil {
		return err
	}
	if err := setAddress("eth0", netip.PrefixFrom(s.Network.Node, linkBits)); err != nil {
		return err
	}
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	way := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: s.Network.Host.AsSlice()}
	if err := netlink.RouteAdd(way); err != nil {
		return fmt.Errorf("adding the default route: %w", err)
	}
	// local: what is for a Service is sent on before it gets here, the rest is answered with "connection refused"
	own := &netlink.Route{
		LinkIndex: loopback.Attrs().Index, Dst: toIPNet(s.Network.Balancers), Type: unix.RTN_LOCAL,
		Scope: netlink.SCOPE_HOST, Table: unix.RT_TABLE_LOCAL,
	}
	if err := netlink.RouteAdd(own); err != nil {
		return fmt.Errorf("adding the route of %s: %w", s.Network.Balancers, err)
	}
	if _, err := allowForwarding(); err != nil {
		return err
	}
	return nft(s, fmt.Sprintf(`
table ip devenv {
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr %[1]s ip daddr != %[1]s oifname "eth0" masquerade
  }
}`, s.Network.Pods))
}

// route sends what is for the block to the node. It goes with the interface.
func route(name string, block netip.Prefix, node netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("looking for the interface %s: %w", name, err)
	}
	way := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: toIPNet(block), Gw: node.AsSlice()}
	if err := netlink.RouteReplace(way); err != nil {
		return fmt.Errorf("routing %s to the node: %w", block, err)
	}
	return nil
}

func toIPNet(block netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: block.Addr().AsSlice(), Mask: net.CIDRMask(block.Bits(), 32)}
}

func setAddress(name string, address netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("looking for the interface %s: %w", name, err)
	}
	if address.IsValid() {
		block := &net.IPNet{IP: address.Addr().AsSlice(), Mask: net.CIDRMask(address.Bits(), 32)}
		err := netlink.AddrReplace(link, &netlink.Addr{IPNet: block})
		if err != nil {
			return fmt.Errorf("giving %s to %s: %w", address, name, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("setting %s up: %w", name, err)
	}
	return nil
}

const forwarding = "/proc/sys/net/ipv4/ip_forward"

// allowForwarding lets packets through from one interface to another; it tells what was set before.
func allowForwarding() (before string, err error) {
	text, err := os.ReadFile(forwarding)
	if err != nil {
		return "", err
	}
	if before = strings.TrimSpace(string(text)); before == "1" {
		return before, nil
	}
	return before, os.WriteFile(forwarding, []byte("1"), 0o644)
}

// rememberForwarding keeps what the host had set, for when the last cluster goes.
func rememberForwarding(dir string) error {
	before, err := allowForwarding()
	if err != nil || before == "1" {
		return err
	}
	return writeFile(filepath.Join(dir, "ip_forward"), []byte(before), 0o644)
}

func restoreForwarding(dir string) error {
	kept := filepath.Join(dir, "ip_forward")
	before, err := os.ReadFile(kept)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.WriteFile(forwarding, before, 0o644); err != nil {
		return err
	}
	return os.Remove(kept)
}

// table is the name of our table on the host; nft's names have no hyphen, and cluster names no underscore.
func (s Settings) table() string { return "devenv_" + strings.ReplaceAll(s.id(), "-", "_") }

func nft(s Settings, rules string) error {
	cmd := exec.Command(s.Programs["nft"], "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return errors.New("nft: " + firstLine(said.String(), err.Error()))
	}
	return nil
}

func firstLine(texts ...string) string {
	for _, text := range texts {
		if line, _, _ := strings.Cut(strings.TrimSpace(text), "\n"); line != "" {
			return line
		}
	}
	return ""
}
