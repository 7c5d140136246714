package supervisor

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Network holds the addresses of one cluster. Pods and Services keep theirs for the cluster's life.
type Network struct {
	Host      netip.Addr   `json:"host"` // the host's end of the link
	Node      netip.Addr   `json:"node"` // the inner end: API server, name server
	Pods      netip.Prefix `json:"pods"`
	Services  netip.Prefix `json:"services"`
	Balancers netip.Prefix `json:"balancers"` // for Services of type LoadBalancer; the host routes it to the node
	MTU       int          `json:"mtu"`
}

const (
	linkBits     = 30
	balancerBits = 26
)

var (
	links     = netip.MustParsePrefix("10.213.0.0/16")
	balancers = netip.MustParsePrefix("10.214.0.0/16")
	pods      = prefixes("10.244.0.0/16", "10.245.0.0/16", "172.30.0.0/16", "192.168.244.0/22")
	services  = prefixes("10.96.0.0/16", "10.97.0.0/16", "172.31.0.0/16", "192.168.248.0/22")
)

func prefixes(texts ...string) []netip.Prefix {
	var found []netip.Prefix
	for _, text := range texts {
		found = append(found, netip.MustParsePrefix(text))
	}
	return found
}

// service is the n-th address of the Services: 1 is the API server, 10 the name server.
func (n Network) service(nth byte) netip.Addr {
	bytes := n.Services.Addr().As4()
	bytes[3] = nth
	return netip.AddrFrom4(bytes)
}

// gateway is the address that every pod's default route points to.
func (n Network) gateway() netip.Addr { return n.Pods.Addr().Next() }

// choose keeps the kept addresses where nobody else uses them, and finds free ones where not.
func choose(id string, kept Network, used []netip.Prefix) (Network, error) {
	if !kept.Pods.IsValid() {
		kept.Pods = firstFree(pods, used)
		kept.Services = firstFree(services, used)
	}
	if !kept.Balancers.IsValid() || !isFree(kept.Balancers, used) {
		block, err := freeBlock(id, balancers, balancerBits, used)
		if err != nil {
			return kept, err
		}
		kept.Balancers = block
	}
	if kept.Node.IsValid() && isFree(netip.PrefixFrom(kept.Host, linkBits).Masked(), used) {
		return kept, nil
	}
	link, err := freeBlock(id, links, linkBits, used)
	if err != nil {
		return kept, err
	}
	kept.Host = link.Addr().Next()
	kept.Node = kept.Host.Next()
	return kept, nil
}

// freeBlock is a block of so many bits inside `all` that nobody uses; the search begins where the cluster's name says.
func freeBlock(id string, all netip.Prefix, bits int, used []netip.Prefix) (netip.Prefix, error) {
	hash := fnv.New32a()
	hash.Write([]byte(id))
	count := uint32(1) << (bits - all.Bits())
	base := all.Addr().As4()
	first := binary.BigEndian.Uint32(base[:])
	for i := range count {
		nth := (hash.Sum32() + i) % count
		binary.BigEndian.PutUint32(base[:], first+nth<<(32-bits))
		if block := netip.PrefixFrom(netip.AddrFrom4(base), bits); isFree(block, used) {
			return block, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("the host uses every address of %s", all)
}

func isFree(block netip.Prefix, used []netip.Prefix) bool {
	for _, other := range used {
		if other.Overlaps(block) {
			return false
		}
	}
	return true
}

// firstFree falls back to the first: inside our own namespace it hides a network of the host, which is all.
func firstFree(blocks, used []netip.Prefix) netip.Prefix {
	for _, block := range blocks {
		if isFree(block, used) {
			return block
		}
	}
	return blocks[0]
}

// hostUses lists the networks that the host has addresses in or routes to, and its MTU towards the world.
func hostUses() (used []netip.Prefix, mtu int, err error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, 0, fmt.Errorf("reading the host's routes: %w", err)
	}
	mtu = 1500
	for _, route := range routes {
		if prefix, ok := toPrefix(route.Dst); ok && prefix.Bits() > 0 {
			used = append(used, prefix)
		} else if link, err := netlink.LinkByIndex(route.LinkIndex); err == nil && link.Attrs().MTU < mtu {
			mtu = link.Attrs().MTU
		}
	}
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, 0, fmt.Errorf("reading the host's addresses: %w", err)
	}
	for _, address := range addresses {
		if prefix, ok := toPrefix(address.IPNet); ok {
			used = append(used, prefix)
		}
	}
	return used, mtu, nil
}

func toPrefix(block *net.IPNet) (netip.Prefix, bool) {
	if block == nil {
		return netip.Prefix{}, false
	}
	address, ok := netip.AddrFromSlice(block.IP.To4())
	bits, _ := block.Mask.Size()
	return netip.PrefixFrom(address, bits).Masked(), ok
}
