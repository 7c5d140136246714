{{/* Names and labels. The subcharts use them too: they are never installed without this chart. */}}

{{/*
The name of an object: `list $ suffix limit`. It is <release>-<suffix>, as people and programs expect it.
A release whose name is too long for that, has dots or starts with a digit gets a stem of its own, told apart by a hash.
*/}}
{{- define "backend.name" -}}
{{- $release := (index . 0).Release.Name }}
{{- $tail := index . 1 | empty | ternary "" (printf "-%s" (index . 1)) }}
{{- $limit := index . 2 | int }}
{{- $stem := $release }}
{{- if or (gt (len (printf "%s%s" $release $tail)) $limit) (not (regexMatch "^[a-z][-a-z0-9]*$" $release)) }}
{{- $hash := $release | sha256sum | trunc 6 }}
{{- $plain := regexReplaceAll "^([0-9])" ($release | replace "." "-") "r${1}" }}
{{- $room := sub $limit (add 7 (len $tail)) | int }}
{{- $stem = printf "%s-%s" ($plain | trunc $room | trimSuffix "-") $hash }}
{{- end }}
{{- printf "%s%s" $stem $tail }}
{{- end }}

{{/* What selects pods: `list $ name component` */}}
{{- define "backend.selector" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
app.kubernetes.io/component: {{ index . 2 }}
{{- end }}

{{/* Labels of objects and pods: `list $ name component image` */}}
{{- define "backend.labels" -}}
{{ include "backend.selector" . }}
{{- with (index . 3).tag }}
app.kubernetes.io/version: {{ toString . | trunc 63 | trimAll "-_." | quote }}
{{- end }}
app.kubernetes.io/part-of: backend
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
{{- end }}
