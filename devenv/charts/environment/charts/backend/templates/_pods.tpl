{{/* What all pods and containers have in common. */}}

{{/* A pod's own fields: `list $ uid`. Nothing here talks to the API server; all meet the restricted Pod Security Standard. */}}
{{- define "backend.pod" -}}
{{- $root := index . 0 -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ index . 1 }}
  runAsGroup: {{ index . 1 }}
  fsGroup: {{ index . 1 }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with ($root.Values.global).imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ kindIs "map" . | ternary (get (kindIs "map" . | ternary . dict) "name") . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where a pod may run: `dict` with nodeSelector and tolerations. */}}
{{- define "backend.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A container's image and confinement: `list $ image "path.of.the.value"` */}}
{{- define "backend.container" -}}
{{- $image := index . 1 | default dict }}
{{- $path := index . 2 }}
{{- $repository := $image.repository | required (printf "%s.repository is empty: name an image" $path) }}
{{- $registry := $image.registry }}
{{- if not (or $registry (regexMatch "^(localhost|[^/]*[.:][^/]*)/" $repository)) }}
{{- $registry = ((index . 0).Values.global).imageRegistry }}
{{- end }}
{{- $version := "" }}
{{- with $image.tag }}{{ $version = printf ":%s" (toString .) }}{{ end }}
{{- with $image.digest }}{{ $version = printf "%s@%s" $version . }}{{ end }}
{{- if not $version }}{{ fail (printf "%s.tag is empty: name the image's tag or its digest" $path) }}{{ end -}}
image: {{ printf "%s%s%s" ($registry | empty | ternary "" (printf "%s/" $registry)) $repository $version | quote }}
imagePullPolicy: {{ $image.pullPolicy | default "IfNotPresent" }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Environment entries, merged by name: a list of lists, of which the later win. Helm 4 refuses a name that comes twice. */}}
{{- define "backend.env" -}}
{{- $names := list }}
{{- $entries := dict }}
{{- range . }}
{{- range default list . }}
{{- if not (hasKey $entries .name) }}{{ $names = append $names .name }}{{ end }}
{{- $_ := set $entries .name . }}
{{- end }}
{{- end }}
{{- range $names }}
- {{ toYaml (get $entries .) | nindent 2 | trim }}
{{- end }}
{{- end }}
