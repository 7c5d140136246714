// Package controllers is one process with all that a node of ours does beyond Kubernetes: volumes, addresses for
// Services of type LoadBalancer, and NetworkPolicies. One process, as each would cost 15 MB of its own.
package controllers

import (
	"context"
	"errors"
	"flag"
	"net/netip"
	"sync"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"devenv/node/balancer"
	"devenv/node/policy"
	"devenv/node/provisioner"
)

// Run serves until the process ends.
func Run(args []string) error {
	flags := flag.NewFlagSet("controllers", flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "how to reach the cluster")
	root := flags.String("root", "", "the directory that holds one directory for each volume")
	node := flags.String("node", "", "the name of the node that volumes and pods are on")
	addresses := flags.String("addresses", "", "the block of addresses for Services of type LoadBalancer")
	if err := flags.Parse(args); err != nil {
		return err
	}
	block, err := netip.ParsePrefix(*addresses)
	if err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	config.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx := klog.NewContext(context.Background(), klog.Background())
	var group sync.WaitGroup
	group.Go(func() { provisioner.Run(ctx, client, *root, *node) })
	group.Go(func() { balancer.Run(ctx, client, block) })
	group.Go(func() { policy.Run(ctx, client, *node) })
	group.Wait()
	return errors.New("the controllers ended")
}
